"""What is shown of a run, a plan or statuses, whatever the format."""
