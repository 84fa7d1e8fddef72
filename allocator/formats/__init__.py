"""The file formats: problem.json and solution.json, version 1, in both forms."""
