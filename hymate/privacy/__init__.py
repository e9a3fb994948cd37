"""What a number of noisy steps says about one patient: differential privacy's arithmetic."""
