"""A case on disk: what it is made of, where its members come from, and the one loop over cases."""
