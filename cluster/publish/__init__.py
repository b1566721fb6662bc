"""From a learner group to its generation workers: new versions of the weights.

A learner *publishes* a version once, through a sink (`client`, `native`), to the publisher (`actor`), which holds its bytes
(`versions`). A *push* brings it to one worker: `delivery` decides which pushes there are, `workers` carries them out, and `pushes`
keeps their times. A *transfer* is a version that its learner sends itself, GPU to GPU (`transfer`).
"""
