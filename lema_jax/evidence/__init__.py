"""Statistics of evaluations and data sets, and the pages that show them."""
