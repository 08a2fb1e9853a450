"""Exams as files: folders of multiple-choice questions, and questions in records of any form."""
