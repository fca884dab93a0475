"""What the modules share and readers need not know."""
