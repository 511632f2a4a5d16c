"""What a network evaluation costs, and where its time goes."""
