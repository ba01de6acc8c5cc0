"""What messages and calls share about accounts: what they own, what they are told, what they are owed."""
