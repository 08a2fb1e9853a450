"""`mengya data`: public data sets by name, one file a verb."""
