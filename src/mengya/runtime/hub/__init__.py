"""The hubs' own packages as mengya calls them: with limits on waiting, and with one kind of failure."""
