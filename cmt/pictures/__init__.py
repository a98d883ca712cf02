"""Pictures of label maps: segments over an image, and sheets of pictures."""
