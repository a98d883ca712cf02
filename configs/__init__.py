"""Text configs, found by bare name: `scenes/tiny`."""
