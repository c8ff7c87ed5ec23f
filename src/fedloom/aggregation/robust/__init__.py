"""What bounds the harm that single clients can do: pure functions of inner products, which give weights and scales."""
