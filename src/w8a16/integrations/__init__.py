"""One file for each library we fit into; that library is imported inside, never at import."""
