"""Models to compare HyMaTE with: one small file each, on the same batches, built by `hymate.model.registry`.

| name                  | reads                         | pretrained by forecasting | file           |
|-----------------------|-------------------------------|---------------------------|----------------|
| `gru`                 | hourly table                  | no                        | gru.py         |
| `gru_d`               | hourly table                  | no                        | gru_d.py       |
| `tcn`                 | hourly table                  | no                        | tcn.py         |
| `sand`                | hourly table                  | no                        | sand.py        |
| `interp_net`          | triplets, smoothed over time  | no                        | interp_net.py  |
| `strats`              | triplets                      | yes                       | strats.py      |
| `mamba`               | triplets                      | yes                       | mamba.py       |
| `transformer`         | triplets                      | yes                       | transformer.py |
| `logistic_regression` | summary features              | -                         | summary.py     |
| `gradient_boosting`   | summary features              | -                         | summary.py     |

Figures that papers state for in-hospital mortality on PhysioNet-2012. Splits, inputs and label fractions
differ from paper to paper, so they say only what to expect:

| model                                 | AUROC        | AUPRC | stated in                                 |
|---------------------------------------|--------------|-------|-------------------------------------------|
| HyMaTE                                | 0.868        | 0.602 | arXiv 2509.24118                          |
| mTAND                                 | 0.858        | -     | Shukla and Marlin 2021, arXiv 2101.10318  |
| GRU, GRU-D, TCN, SAnD, InterpNet,     | 0.80 to 0.87 | -     | the tables of arXiv 2107.14293 and        |
| STraTS                                |              |       | 2509.24118 (a range; look there to quote) |
"""
