"""Which domains hurt each other: the trainings that tell, their analysis, and the clusters that follow."""
