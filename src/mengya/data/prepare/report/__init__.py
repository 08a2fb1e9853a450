"""What `mengya prepare` says of the data: data_report.json, and report.html for people."""
