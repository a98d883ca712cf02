"""Messages of the text configs, generated from the .proto files."""
