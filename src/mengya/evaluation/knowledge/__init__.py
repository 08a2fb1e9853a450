"""What a model knows of school subjects and daily life: facts/*.yaml as sentences to choose from."""
