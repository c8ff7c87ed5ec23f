"""A live page of runs, on this machine only: what their journals say, and buttons that ask something of them."""
