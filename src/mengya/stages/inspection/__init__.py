"""What `mengya inspect` shows: samples, in the terminal and on a page."""
