"""Plan each file of a load by comparing it with the journal and the dataset."""
