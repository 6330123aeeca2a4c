"""Word problems of our own, with a checker that knows the first wrong step of any solution."""
