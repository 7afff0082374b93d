"""What happened, how old what was served was, and what came of it."""
