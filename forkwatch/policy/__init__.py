"""What facts amount to: findings, then one verdict. Policy, not science; thresholds are settings."""
