"""Is a difference real? Statistics and the page that shows them."""
