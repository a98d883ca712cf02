"""The command line, `cmt`: one thin file per command."""
