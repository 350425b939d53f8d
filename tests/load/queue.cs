// An SQS that is faster than what is asked of it: it hands out the lines of a file, ten a request, and counts what is deleted. It speaks
// as much of the protocol (AWS JSON 1.0) as a receiver needs. Each answer takes as long as one of AWS takes in its own region.
//   dotnet run -c Release --file tests/load/queue.cs -- <url> <envelopes.ndjson> <messages> <milliseconds an answer>
// GET / tells how many lie there still.
#:sdk Microsoft.NET.Sdk.Web
#:property PublishAot=true
#:property EnforceCodeStyleInBuild=false
#:property RestorePackagesWithLockFile=false
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;

string[] bodies = [.. File.ReadLines(args[1]).Take(int.Parse(args[2]))];
string[] hashes = [.. bodies.Select(body => Convert.ToHexStringLower(MD5.HashData(Encoding.UTF8.GetBytes(body))))];
var pause = TimeSpan.FromMilliseconds(int.Parse(args[3]));
int next = 0, deleted = 0;
var builder = WebApplication.CreateSlimBuilder();
builder.Logging.ClearProviders();
var app = builder.Build();
app.MapGet("/", () => $"{bodies.Length - Volatile.Read(ref deleted)}\n");
app.MapPost("/", async (HttpRequest request) =>
{
    var asked = (await JsonNode.ParseAsync(request.Body))!.AsObject();
    await Task.Delay(pause);
    if (request.Headers["X-Amz-Target"] == "AmazonSQS.DeleteMessageBatch")
    {
        string[] ids = [.. asked["Entries"]!.AsArray().Select(entry => entry!["Id"]!.GetValue<string>())];
        Interlocked.Add(ref deleted, ids.Length);
        return Results.Text($$"""{"Successful":[{{string.Join(',', ids.Select(id => $$"""{"Id":"{{id}}"}"""))}}],"Failed":[]}""", "application/x-amz-json-1.0");
    }
    if (request.Headers["X-Amz-Target"] == "AmazonSQS.GetQueueAttributes")
        return Results.Text($$$"""{"Attributes":{"ApproximateNumberOfMessages":"{{{bodies.Length - next}}}"}}""", "application/x-amz-json-1.0");
    int from = Math.Min(Interlocked.Add(ref next, 10) - 10, bodies.Length), until = Math.Min(from + 10, bodies.Length);
    if (from == until) await Task.Delay(1000);
    var messages = Enumerable.Range(from, until - from).Select(i => (JsonNode)new JsonObject
    {
        ["MessageId"] = $"{i}", ["ReceiptHandle"] = $"{i}", ["MD5OfBody"] = hashes[i], ["Body"] = bodies[i],
    });
    return Results.Text(new JsonObject { ["Messages"] = new JsonArray([.. messages]) }.ToJsonString(), "application/x-amz-json-1.0");
});
app.Run(args[0]);
