"""Diagnosis: the most likely cause in up to three sentences, and a bundle (zip file) with the data that it rests on."""
