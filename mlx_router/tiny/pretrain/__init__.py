"""The program that makes the embedded base model: data, packing, model, training, evaluation."""
