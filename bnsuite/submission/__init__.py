"""Submissions: check, confine and measure schemes whose code is not trusted."""
