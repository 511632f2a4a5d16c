"""What several workers over Redis give, cost and survive."""
