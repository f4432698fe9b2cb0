# The image of cluster.kuberay.yaml: `pip wheel --no-deps -w dist . && docker build -t hyperfleet:0.1.0 .`
FROM rayproject/ray:2.60.0-py311-cpu
COPY dist constraints.txt /tmp/hyperfleet/
RUN pip install --no-cache-dir -c /tmp/hyperfleet/constraints.txt boto3 /tmp/hyperfleet/hyperfleet-*.whl
