"""SQLite through adbapi; knows no peer and no message."""
