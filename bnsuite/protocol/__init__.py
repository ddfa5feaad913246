"""Protocol: the rules by which traces become values. Tasks and audit both follow them. No torch."""
