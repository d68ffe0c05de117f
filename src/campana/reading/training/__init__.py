"""Training readers: spans first, then abstention, then contrast. Objectives are parts; the loop is one for all of them."""
