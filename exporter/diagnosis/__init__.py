"""What is the matter with a data plane, said in three sentences and written into a file that can be sent."""
