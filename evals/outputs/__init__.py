"""Answers for output attribution: drawn and scored in the confined child, or asked of an endpoint.

Read `interface.py` first. What the answers say is for `detector.outputs`.
"""
