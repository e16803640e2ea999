"""What the draws are worth: summary, LOO, gate, and checks as plug-ins."""
