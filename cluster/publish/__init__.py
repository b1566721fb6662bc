"""From a learner group to its generation workers: new versions of the weights.

A learner *publishes* a version once, through a sink (`client`, `native`), to the publisher (`actor`), which knows on which nodes
its bytes lie (`versions`); a node's are kept by its `holder`. A *push* brings it to one worker: `delivery` decides which pushes
there are, `workers` carries them out, `agreement` compares what they loaded, and `pushes` keeps their times. A *transfer* is a
version that its learner sends itself, GPU to GPU (`transfer`); `fallback` says when not. `reports` brings the learners' metrics to
the driver.
"""
