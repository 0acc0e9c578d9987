"""Results that are kept and compared with, and what wrote them."""
