"""Submissions: what a scheme from elsewhere must pass before it is measured."""
