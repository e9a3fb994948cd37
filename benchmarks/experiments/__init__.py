"""The paper's experiments: tables of trainings, run one by one, collected into docs/results.md."""
