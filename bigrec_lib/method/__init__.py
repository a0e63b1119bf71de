"""What the study is about, in the order the data goes; a room imports only from those above it."""
