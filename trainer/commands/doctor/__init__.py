"""scripts/doctor.py: for each thing that training needs, what was found, what is wanted, a verdict and a remedy."""
