"""What stands in for a ledger: the brain that the overlay reports to."""
