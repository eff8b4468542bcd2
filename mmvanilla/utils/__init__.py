"""What every room uses: the command line, what is installed, where files are."""
