"""Protocol: rules that turn traces into values, for tasks and audit alike. No torch."""
