"""What `plimsoll simulate` shows: the table in the terminal and the report page."""
