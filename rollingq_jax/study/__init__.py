"""Methods x seeds as runs of their own, compared by seed.

What a seed pairs, for any two methods of a study:

- the splits, where they are cut by the seed;
- the order of training samples, what augments them, which modalities are
  dropped: batch i holds the same samples in the same rows;
- the noise on each modality, in training and in evaluation, whichever others a
  method sees beside it;
- the initialisation of each parameter that both have by the same name and
  shape (the encoders, as a rule): it is drawn from the seed and that name;
- the key of each step, from which dropout draws by the layer's name.

What it cannot pair:

- modalities that are dropped, of methods that see other modalities: one at
  least is left of those that a method sees;
- parameters that only one method has, or that have other shapes;
- the last bits: programs that differ are compiled to sums in another order.
"""
