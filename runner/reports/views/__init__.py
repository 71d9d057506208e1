"""What is shown of a run, a plan or job statuses, whatever the output format."""
