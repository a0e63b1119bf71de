"""What runs the study: parameters, jobs, the batch; it knows nothing of what is found."""
